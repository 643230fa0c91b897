"""Learning with noisy labels: the parts that robust distillers, cleaners and audits share."""
