"""What a guest prints when something went wrong in it: reports of its kernel, of its start, of its firmware."""
