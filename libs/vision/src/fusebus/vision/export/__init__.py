"""Training, export and evaluation of the demo model; needs the `export` extra, which no service installs."""
