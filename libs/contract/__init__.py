"""The rules of Parley's contract that several services apply, each written once.

`enums` and `reasons` hold its words, `fields` and `messages` its field rules; they import the standard library and
`servicekit.errors` only, so that every domain model may import them. `wire` alone knows the generated stubs.
"""
