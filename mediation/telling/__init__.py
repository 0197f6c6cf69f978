"""Who is told what of a problem, when, in which words and through which channels."""
