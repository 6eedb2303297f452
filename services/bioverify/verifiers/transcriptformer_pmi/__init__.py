"""Do the two genes go together in single cells?"""
