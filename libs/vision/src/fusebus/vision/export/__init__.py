"""Training, export and evaluation of the demo model; needs the `export` extra (torch, transformers), which no service installs."""
