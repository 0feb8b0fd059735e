# Why a token is refused: the parsers return a number, and one function makes the exception that belongs to it.
# Numbers cost nothing, can be returned without the GIL, and keep the words in one place.

from fastverify.errors import InvalidClaim, InvalidSignature, MalformedToken, UnknownKey, UnsupportedToken

cdef enum Refusal:
    FINE
    # compact form
    NOT_ASCII, TOO_LARGE, PARTS, EMPTY_PART, FIVE_PARTS, BASE64URL, HEADER_TOO_LARGE, SIGNATURE_TOO_LARGE
    # JSON
    NOT_OBJECT, JSON_SYNTAX, TRAILING_DATA, UTF8, SURROGATE, DUPLICATE_MEMBER, DEPTH, MEMBERS, STRING_SIZE, NUMBER_RANGE
    # protected header
    ALG_MALFORMED, KID_MALFORMED, TYP_MALFORMED, ALGORITHM, UNKNOWN_KEY, KID_MISSING, SIGNATURE
    # no verdict: not refusals of the token
    CHECK_FAILED, CHECKS_CONTRADICT

# Reason and message of each; the class follows from the place in the list above.
cdef dict REFUSALS = {
    NOT_ASCII: (MalformedToken, "base64url", "not ASCII"),
    TOO_LARGE: (MalformedToken, "too_large", "larger than allowed"),
    PARTS: (MalformedToken, "parts", "not three parts separated by dots"),
    EMPTY_PART: (MalformedToken, "empty_part", "an empty part"),
    FIVE_PARTS: (UnsupportedToken, "jwe", "five parts: encrypted tokens (JWE) are not accepted"),
    BASE64URL: (MalformedToken, "base64url", "not strict base64url"),
    HEADER_TOO_LARGE: (MalformedToken, "too_large", "protected header larger than 1 KiB"),
    SIGNATURE_TOO_LARGE: (MalformedToken, "too_large", "signature larger than 1 KiB"),
    NOT_OBJECT: (MalformedToken, "not_object", "not a JSON object"),
    JSON_SYNTAX: (MalformedToken, "json_syntax", "not JSON"),
    TRAILING_DATA: (MalformedToken, "trailing_data", "data after the JSON object"),
    UTF8: (MalformedToken, "utf8", "not UTF-8"),
    SURROGATE: (MalformedToken, "surrogate", "a lone surrogate"),
    DUPLICATE_MEMBER: (MalformedToken, "duplicate_member", "a duplicate member name"),
    DEPTH: (MalformedToken, "depth", "nested deeper than 8"),
    MEMBERS: (MalformedToken, "members", "an object of more than 128 members"),
    STRING_SIZE: (MalformedToken, "string_size", "a string or number longer than 4 KiB"),
    NUMBER_RANGE: (MalformedToken, "number_range", "a number beyond the range of a double"),
    ALG_MALFORMED: (MalformedToken, "alg_malformed", "alg is not a string"),
    KID_MALFORMED: (MalformedToken, "kid_malformed", "kid is not a string of at most 128 bytes"),
    TYP_MALFORMED: (MalformedToken, "typ_malformed", "typ is not a string"),
    ALGORITHM: (UnsupportedToken, "algorithm", "alg is not allowed"),
    UNKNOWN_KEY: (UnknownKey, "unknown_key", "no key has this kid"),
    KID_MISSING: (UnknownKey, "kid_missing", "no kid, and not exactly one key for this alg"),
    SIGNATURE: (InvalidSignature, "invalid_signature", "the signature does not verify"),
}


cdef object refusal(int code, str part):
    """The exception for a code; `part` says where: "token", "protected header" or "claims"."""
    kind, reason, message = REFUSALS[code]
    return kind(f"{part}: {message}" if part else message, reason=reason)


cdef object claim_refusal(str claim, str fault, str message):
    """InvalidClaim for a claim that is missing, malformed or a mismatch; three faults, never taken for one another."""
    return InvalidClaim(f"{claim} {message}", claim=claim, reason=f"{claim}_{fault}")
