"""What a fine-tune needs, takes and costs. Pure functions over shapes, setups and offers; needs no torch."""
