"""The commands, one module per group of related ones. Only click and the standard library load with them."""
