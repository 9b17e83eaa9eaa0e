"""``make mutate``: do the fast tests notice when one thing in the pure parts is changed?"""
