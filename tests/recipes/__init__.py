"""The recipes of docs/recipes.md, each tried with the real application behind the gateway.

What is installed with the tests always runs. The other applications are too many to install for every run: a variable
names where each is, such as `RECIPES_DJANGO=/tmp/django` for a virtual environment made with `pip install django`.
"""
