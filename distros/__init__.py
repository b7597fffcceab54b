"""The distributions pvmlab knows: one YAML file for each release, one class for each family."""
