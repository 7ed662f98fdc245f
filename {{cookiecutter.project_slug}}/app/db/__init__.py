"""The session layer. Start with `session.py`: when does it commit?"""
