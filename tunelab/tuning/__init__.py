"""The search itself: what Ray and Optuna are told, and what is recorded of it."""
