# The libcrypto calls that the core uses, in our own words: Cython emits these prototypes, so no OpenSSL headers are
# needed. Every one is a plain exported function with this signature in OpenSSL 3.0 to 4.x, and none is deprecated
# there. Return values: 1 is success wherever an int is returned, and nothing else is (0 and negative values are both
# failures).

cdef extern from *:
    """
    typedef struct evp_md_st EVP_MD;
    typedef struct evp_md_ctx_st EVP_MD_CTX;
    typedef struct evp_pkey_st EVP_PKEY;
    typedef struct evp_pkey_ctx_st EVP_PKEY_CTX;
    typedef struct ossl_param_st OSSL_PARAM;
    typedef struct ossl_param_bld_st OSSL_PARAM_BLD;
    typedef struct bignum_st BIGNUM;
    typedef struct ossl_lib_ctx_st OSSL_LIB_CTX;
    """
    ctypedef struct EVP_MD
    ctypedef struct EVP_MD_CTX
    ctypedef struct EVP_PKEY
    ctypedef struct EVP_PKEY_CTX
    ctypedef struct OSSL_PARAM
    ctypedef struct OSSL_PARAM_BLD
    ctypedef struct BIGNUM
    ctypedef struct OSSL_LIB_CTX

cdef extern:
    const char *OpenSSL_version(int what) nogil
    unsigned long ERR_peek_error() nogil
    void ERR_clear_error() nogil
    int CRYPTO_memcmp(const void *a, const void *b, size_t length) nogil
    void OPENSSL_cleanse(void *data, size_t length) nogil
    int RAND_bytes(unsigned char *out, int length) nogil

    # Digests. copy_ex clones a prepared state; that is what templates are for.
    EVP_MD *EVP_MD_fetch(OSSL_LIB_CTX *library, const char *algorithm, const char *properties) nogil
    EVP_MD_CTX *EVP_MD_CTX_new() nogil
    void EVP_MD_CTX_free(EVP_MD_CTX *ctx) nogil
    int EVP_MD_CTX_copy_ex(EVP_MD_CTX *out, const EVP_MD_CTX *template) nogil
    int EVP_DigestInit_ex2(EVP_MD_CTX *ctx, const EVP_MD *md, const OSSL_PARAM *params) nogil
    int EVP_DigestUpdate(EVP_MD_CTX *ctx, const void *data, size_t length) nogil
    int EVP_DigestFinal_ex(EVP_MD_CTX *ctx, unsigned char *out, unsigned int *length) nogil

    # Keys from their numbers.
    BIGNUM *BN_bin2bn(const unsigned char *data, int length, BIGNUM *out) nogil
    void BN_free(BIGNUM *number) nogil
    OSSL_PARAM_BLD *OSSL_PARAM_BLD_new() nogil
    int OSSL_PARAM_BLD_push_BN(OSSL_PARAM_BLD *builder, const char *key, const BIGNUM *number) nogil
    int OSSL_PARAM_BLD_push_utf8_string(OSSL_PARAM_BLD *builder, const char *key, const char *text, size_t length) nogil
    int OSSL_PARAM_BLD_push_octet_string(OSSL_PARAM_BLD *builder, const char *key, const void *data,
                                         size_t length) nogil
    OSSL_PARAM *OSSL_PARAM_BLD_to_param(OSSL_PARAM_BLD *builder) nogil
    void OSSL_PARAM_BLD_free(OSSL_PARAM_BLD *builder) nogil
    void OSSL_PARAM_free(OSSL_PARAM *params) nogil
    EVP_PKEY_CTX *EVP_PKEY_CTX_new_from_name(OSSL_LIB_CTX *library, const char *name, const char *properties) nogil
    EVP_PKEY_CTX *EVP_PKEY_CTX_new_from_pkey(OSSL_LIB_CTX *library, EVP_PKEY *pkey, const char *properties) nogil
    void EVP_PKEY_CTX_free(EVP_PKEY_CTX *ctx) nogil
    void EVP_PKEY_free(EVP_PKEY *pkey) nogil
    int EVP_PKEY_fromdata_init(EVP_PKEY_CTX *ctx) nogil
    int EVP_PKEY_fromdata(EVP_PKEY_CTX *ctx, EVP_PKEY **pkey, int selection, OSSL_PARAM *params) nogil
    int EVP_PKEY_public_check(EVP_PKEY_CTX *ctx) nogil

    # Verifying. A prepared EVP_PKEY_CTX serves many EVP_PKEY_verify calls; a context given to EVP_DigestVerify serves
    # one.
    int EVP_PKEY_verify_init(EVP_PKEY_CTX *ctx) nogil
    int EVP_PKEY_CTX_set_signature_md(EVP_PKEY_CTX *ctx, const EVP_MD *md) nogil
    int EVP_PKEY_CTX_set_rsa_padding(EVP_PKEY_CTX *ctx, int padding) nogil
    int EVP_PKEY_CTX_set_rsa_pss_saltlen(EVP_PKEY_CTX *ctx, int length) nogil
    int EVP_PKEY_CTX_set_rsa_mgf1_md(EVP_PKEY_CTX *ctx, const EVP_MD *md) nogil
    int EVP_PKEY_verify(EVP_PKEY_CTX *ctx, const unsigned char *signature, size_t signature_length,
                        const unsigned char *digest, size_t digest_length) nogil
    int EVP_DigestVerifyInit_ex(EVP_MD_CTX *ctx, EVP_PKEY_CTX **pctx, const char *md_name, OSSL_LIB_CTX *library,
                                const char *properties, EVP_PKEY *pkey, const OSSL_PARAM *params) nogil
    int EVP_DigestVerify(EVP_MD_CTX *ctx, const unsigned char *signature, size_t signature_length,
                         const unsigned char *data, size_t length) nogil

cdef enum:
    OPENSSL_VERSION_TEXT = 0  # argument of OpenSSL_version
    EVP_PKEY_PUBLIC_KEY = 0x86  # selection: domain parameters and public key
    RSA_PKCS1_PADDING = 1
    RSA_PKCS1_PSS_PADDING = 6
