"""Scans, labels and splits: reading, checking, generating. No model, no Keras and no Ray in here.

``dataset`` holds what the others make; ``folder`` reads a folder with ``formats`` (one file) and ``tables`` (the CSV
files); ``splits`` deals scans; ``resample`` changes the number of samples; ``synthetic`` generates scans
(``scenes``, ``waves``); ``check`` describes a data set in words.
"""
