"""What does a classifier over gene vectors expect?"""
