"""The machines of a search: what a cluster file says, what is wrong with it, what it costs and may do.

Starts nothing and changes nothing at AWS. Ray and boto3 are imported where they are needed, so that this is quick.
"""
