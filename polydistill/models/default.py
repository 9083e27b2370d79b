"""The model that is taken where none is given; options read it without loading anything."""

DEFAULT_MODEL = "intfloat/multilingual-e5-small"
