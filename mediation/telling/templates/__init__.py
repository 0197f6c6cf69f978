"""The words in which customers are told things, unless an operator has others."""
