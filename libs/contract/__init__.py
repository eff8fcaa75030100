"""The rules of Parley's contract that several services apply, each written once.

`enums`, `reasons`, `errors` and `chat_fields` hold its terms, `fields` and `messages` its field rules; `placeholders`
and `json_numbers` read text and numbers. They import only the standard library and `servicekit.errors`, so every domain
model may import them. Only `wire` uses the generated stubs.
"""
