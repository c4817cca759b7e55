"""The receipt: fields, form, rules, chain, archive, signatures. Pure but for reading the file of signers."""
