"""Corrections: passes that a policy may switch on around calibration."""
