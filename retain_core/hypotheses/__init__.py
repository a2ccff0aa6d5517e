"""The hypothesis studies: one question each, made from one template (`questions.yaml`), and the ledger of what came out."""
