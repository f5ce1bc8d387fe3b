"""Words and sentences of the demo's orders: one set to learn from, one that only the test rows use.

The two sets have no word in common: no held-out word, in singular or plural, is part of any training
word or sentence, case aside. So a right answer on a test row was read from its e-mail, not remembered.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Words:
    """What orders are made of. `templates` have the fields {name}, {city}, {quantity} and {item}."""

    first_names: tuple[str, ...]
    surnames: tuple[str, ...]
    cities: tuple[str, ...]
    items: tuple[str, ...]
    templates: tuple[str, ...]


def _list(text: str) -> tuple[str, ...]:
    return tuple(" ".join(part.split()) for part in text.split(","))


TRAINING = Words(
    first_names=_list("""
        Adele, Agnes, Alden, Alma, Anton, Arlo, Asha, Basil, Bettina, Birgit, Callum, Celeste, Clement,
        Damian, Daphne, Delia, Desmond, Edgar, Eleni, Elsa, Ephraim, Estelle, Fabian, Felicity, Fergus,
        Flora, Gareth, Gemma, Gideon, Gustav, Harriet, Henrik, Hugo, Ilse, Imogen, Irina, Isaac, Jasper,
        Joanna, Joel, Karim, Kirsten, Lambert, Leonora, Lionel, Lorna, Magnus, Marta, Mathilda, Miro,
        Morgan, Nerys, Nikolai, Odette, Oscar, Patrick, Philippa, Rafael, Renata, Rowan, Ruben, Sabine,
        Selma, Sigrid, Silas, Stefan, Tamsin, Theodora, Tobias, Vincent, Wilfred, Winona, Yasmin, Zelda
    """),
    surnames=_list("""
        Ackerman, Albright, Andersson, Ashworth, Baptiste, Barlow, Beaumont, Bergstrom, Blackwood,
        Bouchard, Brennan, Calloway, Carmichael, Chavez, Conti, Crawford, Delgado, Devlin, Dimitriou,
        Donovan, Dupont, Eastwood, Ellison, Fairchild, Farrell, Fitzgerald, Forsberg, Fraser, Gallagher,
        Gerber, Greenwood, Gupta, Hartmann, Hawkins, Herrera, Holloway, Hoffmann, Ingram, Jankowski,
        Kaplan, Keller, Kimura, Lindgren, Lombardi, Mackenzie, Maldonado, Marchetti, McAllister, Mendoza,
        Mueller, Nakamura, Norwood, Oliveira, Osborne, Palmer, Pemberton, Pereira, Quinlan, Radcliffe,
        Reinhardt, Romano, Rutherford, Sandoval, Schreiber, Sinclair, Stanhope, Sutherland, Takahashi,
        Thornton, Underhill, Vandermeer, Villanueva, Whitaker, Yamada, Zapata
    """),
    cities=_list("""
        Aachen, Aberdeen, Adelaide, Albany, Almeria, Amsterdam, Annecy, Antwerp, Arnhem, Augsburg,
        Auckland, Avignon, Baltimore, Bangalore, Bari, Belfast, Biarritz, Bogota, Bologna, Bordeaux,
        Boston, Bratislava, Brisbane, Brno, Bruges, Budapest, Cambridge, Canberra, Cardiff, Catania,
        Chester, Cordoba, Darwin, Debrecen, Derby, Dundee, Edmonton, Eindhoven, Exeter, Florence,
        Freiburg, Gdansk, Graz, Grenoble, Groningen, Halifax, Hamilton, Innsbruck, Kampala, Karachi,
        Kobe, Leicester, Liverpool, Lucerne, Lusaka, Maastricht, Mombasa, Montpellier, Nagoya, Newcastle,
        Nuremberg, Oviedo, Palermo, Phoenix, Plymouth, Portland, Reykjavik, Rouen, Sapporo, Sheffield,
        Stavanger, Strasbourg, Sydney, Tacoma, Toledo, Toulouse, Turku, Uppsala, Vancouver, Wellington
    """),
    items=_list("""
        bamboo tray, brass hinge, canvas tote, cedar plank, ceramic vase, chrome faucet, coat hanger,
        coffee mug, cork board, cotton apron, desk fan, dinner plate, drawing compass, dust brush,
        electric whisk, espresso cup, felt slipper, file folder, fishing reel, folding ladder, footstool,
        glass jar, golf glove, hair comb, hand mirror, hockey stick, iron skillet, kitchen scale,
        knitting needle, label printer, leather wallet, letter opener, linen napkin, magnet strip,
        marble bowl, measuring spoon, metal bucket, mouse pad, nail clipper, oak bench, paper lantern,
        pocket torch, plastic crate, rubber mallet, saddle bag, salad fork, satin ribbon, sewing kit,
        shoe rack, ski helmet, soap dish, stapler, steel ruler, swivel chair, table runner, teapot,
        tape dispenser, toast rack, trumpet case, umbrella stand, vacuum hose, velvet cushion,
        wine cooler, wooden spatula, wool mitten, wrist strap, yarn basket, zip pouch, backpack, hammer
    """),
    templates=(
        "Hello, my name is {name}. I would like {quantity} {item}, to be sent to {city}.",
        "{name} speaking. Please get {quantity} {item} ready for {city}.",
        "New order: {quantity} {item}. Customer: {name}. Destination: {city}.",
        "can you post {quantity} {item} to {city}, thanks, {name}",
        "We moved to {city} last week and need {quantity} {item}. Best wishes, {name}",
        "Please reserve {quantity} {item} for {name}, who will collect them in {city}.",
        "Good evening! {quantity} {item} for our house in {city}. Kind regards, {name}",
        "I am {name} from {city}, and I want to buy {quantity} {item}.",
        "Phone note: {name} wants {quantity} {item} in {city} by Monday.",
        "Could {quantity} {item} be brought to {city}? Ask for {name}.",
        "The school in {city} is short of {quantity} {item}, says {name}.",
        "{city}, Tuesday. Dear shop, I ordered nothing yet, so: {quantity} {item}. Yours, {name}",
        "{name} ({city}) asks for {quantity} {item}.",
        "Put {quantity} {item} on my account. Ship to {city}. {name}",
        "hi its {name}, {quantity} {item} pls, address is in {city}",
        "My sister {name} in {city} needs {quantity} {item} for her party.",
        "Do you have {quantity} {item} in stock? If so, {name} of {city} takes all.",
        "For {city}: {quantity} {item}. Bill it to {name}.",
        "Thank you for the quick help. Now {name} also wants {quantity} {item} at the {city} store.",
        "The {city} factory is waiting for {quantity} {item}. {name}",
        "{name} of the {city} team would like {quantity} {item}.",
        "Urgent: {quantity} {item} to the {city} hospital, attention {name}.",
        "Our {city} kitchen lacks {quantity} {item}. Call {name} when they are there.",
        "From: {name}\nTo: sales\nSend {quantity} {item} to {city} please.",
    ),
)

HELD_OUT = Words(
    first_names=_list("""
        Bernard, Cornelia, Dorothy, Eduardo, Francesca, Frederick, Gordon, Isabel, Jerome, Josephine,
        Kenneth, Lucinda, Margaret, Nathaniel, Octavia, Penelope, Raymond, Susanna, Victoria, Winston
    """),
    surnames=_list("""
        Armstrong, Bradshaw, Cunningham, Eriksson, Ferguson, Goldberg, Harrington, Kowalczyk, Livingston,
        Montgomery, Nicholson, Patterson, Richardson, Robertson, Shepherd, Stevenson, Thompson,
        Valentine, Wallace, Zimmerman
    """),
    cities=_list("""
        Atlanta, Barcelona, Brussels, Charleston, Chicago, Cleveland, Copenhagen, Detroit, Frankfurt,
        Gothenburg, Heidelberg, Marseille, Memphis, Nashville, Oxford, Philadelphia, Pittsburgh, Seattle,
        Singapore, Stockholm
    """),
    items=_list("""
        alarm sensor, bathroom cabinet, bicycle pedal, birthday banner, camera tripod, candle holder,
        curtain hook, dumbbell, flower planter, guitar string, laptop charger, microphone,
        notebook sleeve, picnic blanket, pillow cover, shower gel bottle, telescope, tennis ball,
        winter jacket, wireless keyboard
    """),
    templates=(
        "Dear all, kindly dispatch {quantity} {item} to {name} at our {city} branch.",
        "This is {name}. Is it possible to deliver {quantity} {item} to {city} tomorrow?",
        "{quantity} {item}, please! {name}, {city}",
        "A client named {name} rang about {quantity} {item}; she lives in {city}.",
        "Greetings from {city}. Our club requires {quantity} {item}. Sincerely, {name}",
        "Invoice to {name}. Contents: {quantity} {item}. Delivery: {city}.",
        "Everything arrived safely in {city}. Next time add {quantity} {item}. Cheers, {name}",
        "As agreed, {name} receives {quantity} {item} at the {city} warehouse.",
    ),
)
