"""From trained weights to predictions: exports."""
