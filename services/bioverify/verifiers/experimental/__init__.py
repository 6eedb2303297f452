"""Did the screen see this gene respond?"""
