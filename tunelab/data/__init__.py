"""Scans, labels and splits: reading, checking, preparing, generating. No model and no Ray in here.

``dataset`` holds what the others make, ``samples`` says where samples are. From a source to a data set: ``listing``
reads a folder's ``tables`` and headers with ``formats``, ``s3source`` brings those of a bucket; ``prepare``, by its
``plan`` of a ``request``, lets ``build`` make shards in ``workers``, and ``assemble`` adds the ``manifest``; ``cache``
is where they lie and ``inventory`` what is there; ``shards`` maps them, ``prepared`` opens them for those who train,
and ``generated`` opens what is in memory: to a trial both are an ``access``. ``preprocess`` and ``resample`` are the
numerics of a chain, ``statistics`` what a model is normalised by. ``deal`` and ``splits`` deal scans; ``order`` and
``batches`` feed a training; ``synthetic`` generates scans (``scenes`` draws them from ``scene_settings``, with
``soils``; ``underground`` and ``waves`` have the formulas); ``check`` and ``contact_sheet`` show them to a person.
"""
