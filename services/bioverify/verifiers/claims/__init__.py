"""Which claims of the thoughts do our sources support, contradict, or not know of?"""
