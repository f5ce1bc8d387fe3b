"""Carry a job through: what it is, which moves it can make, and the engine that makes them."""
