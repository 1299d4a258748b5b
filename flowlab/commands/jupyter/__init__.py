"""What Jupyter is told when `flowlab lab` starts it: this folder is on its configuration path."""
