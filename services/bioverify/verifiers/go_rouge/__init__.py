"""Does the text say what the Gene Ontology knows of the genes?"""
