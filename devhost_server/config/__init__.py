"""What the YAML may say: layers, expansion, origins, models."""
