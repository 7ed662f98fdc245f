"""The session layer, a library that this project owns: no FastAPI, no feature in it.

When does it commit? `app/transaction.py` says.
"""
