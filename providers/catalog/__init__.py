"""What can be rented, as far as it is known without asking anybody: GPUs and prices, each with its source."""
