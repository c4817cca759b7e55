"""The public keys of token issuers: fetched with care, merged by a policy, stored for the API to verify tokens with."""
