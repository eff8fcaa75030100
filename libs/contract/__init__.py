"""The rules of Parley's contract that several services apply, each written once.

`enums`, `reasons` and `chat_fields` hold its words, `fields` and `messages` its field rules, `placeholders` and
`json_numbers` how texts and numbers are read; they import the standard library and `servicekit.errors` only, so that
every domain model may import them. `wire` alone knows the generated stubs.
"""
