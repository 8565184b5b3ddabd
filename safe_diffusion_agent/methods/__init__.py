"""The methods: each is a folder that imports no other, and a row of the table."""
