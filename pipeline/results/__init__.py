"""The record beside every result, its versions, and the certificate that the result still is what it was."""
