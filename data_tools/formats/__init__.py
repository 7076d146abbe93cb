"""How the bytes of each file format are read and checked; what users call stands one level up."""
