# The libcrypto calls that the core uses, in our own words: Cython emits these prototypes, so no OpenSSL headers are
# needed. Every one is a plain exported function with this signature in OpenSSL 3.0 to 4.x, and none is deprecated
# there, but for those of the fast paths at the end. Return values: 1 is success wherever an int is returned, and
# nothing else is (0 and negative values are both failures).

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

    int EVP_default_properties_is_fips_enabled(OSSL_LIB_CTX *library) nogil
    int EVP_PKEY_encrypt_init(EVP_PKEY_CTX *ctx) nogil
    int EVP_PKEY_encrypt(EVP_PKEY_CTX *ctx, unsigned char *out, size_t *out_length, const unsigned char *data,
                         size_t length) nogil

# What the fast paths call: public functions below EVP, some of them deprecated since 3.0. setup.py finds out by linking
# which of the groups this libcrypto has; where one is missing, calls of it compile to a failure and are never made
# (FAST_HMAC, FAST_RSA and FAST_ECDSA are 0).
cdef extern from *:
    """
    typedef struct bignum_ctx BN_CTX;
    typedef struct bn_mont_ctx_st BN_MONT_CTX;
    typedef struct ec_group_st EC_GROUP;
    typedef struct ec_point_st EC_POINT;

    #ifndef FASTVERIFY_FAST_HMAC
    #define FASTVERIFY_FAST_HMAC 0
    #endif
    #if FASTVERIFY_FAST_HMAC
    extern int SHA256_Init(void *);
    extern int SHA256_Update(void *, const void *, size_t);
    extern int SHA256_Final(unsigned char *, void *);
    extern int SHA384_Init(void *);
    extern int SHA384_Update(void *, const void *, size_t);
    extern int SHA384_Final(unsigned char *, void *);
    extern int SHA512_Init(void *);
    extern int SHA512_Update(void *, const void *, size_t);
    extern int SHA512_Final(unsigned char *, void *);
    #else
    #define SHA256_Init(state) 0
    #define SHA256_Update(state, data, length) 0
    #define SHA256_Final(out, state) 0
    #define SHA384_Init(state) 0
    #define SHA384_Update(state, data, length) 0
    #define SHA384_Final(out, state) 0
    #define SHA512_Init(state) 0
    #define SHA512_Update(state, data, length) 0
    #define SHA512_Final(out, state) 0
    #endif

    #ifndef FASTVERIFY_FAST_RSA
    #define FASTVERIFY_FAST_RSA 0
    #endif
    #if FASTVERIFY_FAST_RSA
    extern BN_CTX *BN_CTX_new(void);
    extern void BN_CTX_free(BN_CTX *);
    extern BIGNUM *BN_new(void);
    extern int BN_cmp(const BIGNUM *, const BIGNUM *);
    extern int BN_is_zero(const BIGNUM *);
    extern int BN_is_one(const BIGNUM *);
    extern int BN_bn2binpad(const BIGNUM *, unsigned char *, int);
    extern BN_MONT_CTX *BN_MONT_CTX_new(void);
    extern void BN_MONT_CTX_free(BN_MONT_CTX *);
    extern int BN_MONT_CTX_set(BN_MONT_CTX *, const BIGNUM *, BN_CTX *);
    extern int BN_to_montgomery(BIGNUM *, const BIGNUM *, BN_MONT_CTX *, BN_CTX *);
    extern int BN_mod_mul_montgomery(BIGNUM *, const BIGNUM *, const BIGNUM *, BN_MONT_CTX *, BN_CTX *);
    #else
    #define BN_CTX_new() NULL
    #define BN_CTX_free(ctx) ((void)0)
    #define BN_new() NULL
    #define BN_cmp(a, b) 0
    #define BN_is_zero(a) 0
    #define BN_is_one(a) 0
    #define BN_bn2binpad(a, out, size) (-1)
    #define BN_MONT_CTX_new() NULL
    #define BN_MONT_CTX_free(mont) ((void)0)
    #define BN_MONT_CTX_set(mont, n, ctx) 0
    #define BN_to_montgomery(r, a, mont, ctx) 0
    #define BN_mod_mul_montgomery(r, a, b, mont, ctx) 0
    #endif

    #ifndef FASTVERIFY_FAST_ECDSA
    #define FASTVERIFY_FAST_ECDSA 0
    #endif
    #if FASTVERIFY_FAST_RSA && FASTVERIFY_FAST_ECDSA
    extern int BN_add(BIGNUM *, const BIGNUM *, const BIGNUM *);
    extern int BN_sub(BIGNUM *, const BIGNUM *, const BIGNUM *);
    extern BIGNUM *BN_mod_inverse(BIGNUM *, const BIGNUM *, const BIGNUM *, BN_CTX *);
    extern int BN_mod_mul(BIGNUM *, const BIGNUM *, const BIGNUM *, const BIGNUM *, BN_CTX *);
    extern int BN_nnmod(BIGNUM *, const BIGNUM *, const BIGNUM *, BN_CTX *);
    extern EC_GROUP *EC_GROUP_new_by_curve_name(int);
    extern EC_GROUP *EC_GROUP_dup(const EC_GROUP *);
    extern void EC_GROUP_free(EC_GROUP *);
    extern const BIGNUM *EC_GROUP_get0_order(const EC_GROUP *);
    extern const BIGNUM *EC_GROUP_get0_cofactor(const EC_GROUP *);
    extern int EC_GROUP_get_curve(const EC_GROUP *, BIGNUM *, BIGNUM *, BIGNUM *, BN_CTX *);
    extern int EC_GROUP_set_generator(EC_GROUP *, const EC_POINT *, const BIGNUM *, const BIGNUM *);
    extern int EC_GROUP_precompute_mult(EC_GROUP *, BN_CTX *);
    extern EC_POINT *EC_POINT_new(const EC_GROUP *);
    extern void EC_POINT_free(EC_POINT *);
    extern int EC_POINT_oct2point(const EC_GROUP *, EC_POINT *, const unsigned char *, size_t, BN_CTX *);
    extern int EC_POINT_mul(const EC_GROUP *, EC_POINT *, const BIGNUM *, const EC_POINT *, const BIGNUM *, BN_CTX *);
    extern int EC_POINT_add(const EC_GROUP *, EC_POINT *, const EC_POINT *, const EC_POINT *, BN_CTX *);
    extern int EC_POINT_is_at_infinity(const EC_GROUP *, const EC_POINT *);
    extern int EC_POINT_get_affine_coordinates(const EC_GROUP *, const EC_POINT *, BIGNUM *, BIGNUM *, BN_CTX *);
    extern int EC_POINT_get_Jprojective_coordinates_GFp(const EC_GROUP *, const EC_POINT *, BIGNUM *, BIGNUM *,
                                                        BIGNUM *, BN_CTX *);
    #else
    #undef FASTVERIFY_FAST_ECDSA
    #define FASTVERIFY_FAST_ECDSA 0
    #define BN_add(r, a, b) 0
    #define BN_sub(r, a, b) 0
    #define BN_mod_inverse(r, a, n, ctx) NULL
    #define BN_mod_mul(r, a, b, n, ctx) 0
    #define BN_nnmod(r, a, n, ctx) 0
    #define EC_GROUP_new_by_curve_name(nid) NULL
    #define EC_GROUP_dup(group) NULL
    #define EC_GROUP_free(group) ((void)0)
    #define EC_GROUP_get0_order(group) NULL
    #define EC_GROUP_get0_cofactor(group) NULL
    #define EC_GROUP_get_curve(group, p, a, b, ctx) 0
    #define EC_GROUP_set_generator(group, generator, order, cofactor) 0
    #define EC_GROUP_precompute_mult(group, ctx) 0
    #define EC_POINT_new(group) NULL
    #define EC_POINT_free(point) ((void)0)
    #define EC_POINT_oct2point(group, point, data, size, ctx) 0
    #define EC_POINT_mul(group, r, n, q, m, ctx) 0
    #define EC_POINT_add(group, r, a, b, ctx) 0
    #define EC_POINT_is_at_infinity(group, point) 0
    #define EC_POINT_get_affine_coordinates(group, point, x, y, ctx) 0
    #define EC_POINT_get_Jprojective_coordinates_GFp(group, point, x, y, z, ctx) 0
    #endif
    """
    ctypedef struct BN_CTX
    ctypedef struct BN_MONT_CTX
    ctypedef struct EC_GROUP
    ctypedef struct EC_POINT
    bint FAST_HMAC "FASTVERIFY_FAST_HMAC"
    bint FAST_RSA "FASTVERIFY_FAST_RSA"
    bint FAST_ECDSA "FASTVERIFY_FAST_ECDSA"

    int SHA256_Init(void *state) nogil
    int SHA256_Update(void *state, const void *data, size_t length) nogil
    int SHA256_Final(unsigned char *out, void *state) nogil
    int SHA384_Init(void *state) nogil
    int SHA384_Update(void *state, const void *data, size_t length) nogil
    int SHA384_Final(unsigned char *out, void *state) nogil
    int SHA512_Init(void *state) nogil
    int SHA512_Update(void *state, const void *data, size_t length) nogil
    int SHA512_Final(unsigned char *out, void *state) nogil

    BN_CTX *BN_CTX_new() nogil
    void BN_CTX_free(BN_CTX *ctx) nogil
    BIGNUM *BN_new() nogil
    int BN_cmp(const BIGNUM *a, const BIGNUM *b) nogil
    int BN_is_zero(const BIGNUM *a) nogil
    int BN_is_one(const BIGNUM *a) nogil
    int BN_bn2binpad(const BIGNUM *a, unsigned char *out, int length) nogil
    BN_MONT_CTX *BN_MONT_CTX_new() nogil
    void BN_MONT_CTX_free(BN_MONT_CTX *mont) nogil
    int BN_MONT_CTX_set(BN_MONT_CTX *mont, const BIGNUM *modulus, BN_CTX *ctx) nogil
    int BN_to_montgomery(BIGNUM *r, const BIGNUM *a, BN_MONT_CTX *mont, BN_CTX *ctx) nogil
    int BN_mod_mul_montgomery(BIGNUM *r, const BIGNUM *a, const BIGNUM *b, BN_MONT_CTX *mont, BN_CTX *ctx) nogil

    int BN_add(BIGNUM *r, const BIGNUM *a, const BIGNUM *b) nogil
    int BN_sub(BIGNUM *r, const BIGNUM *a, const BIGNUM *b) nogil
    BIGNUM *BN_mod_inverse(BIGNUM *r, const BIGNUM *a, const BIGNUM *n, BN_CTX *ctx) nogil
    int BN_mod_mul(BIGNUM *r, const BIGNUM *a, const BIGNUM *b, const BIGNUM *n, BN_CTX *ctx) nogil
    int BN_nnmod(BIGNUM *r, const BIGNUM *a, const BIGNUM *n, BN_CTX *ctx) nogil
    EC_GROUP *EC_GROUP_new_by_curve_name(int nid) nogil
    EC_GROUP *EC_GROUP_dup(const EC_GROUP *group) nogil
    void EC_GROUP_free(EC_GROUP *group) nogil
    const BIGNUM *EC_GROUP_get0_order(const EC_GROUP *group) nogil
    const BIGNUM *EC_GROUP_get0_cofactor(const EC_GROUP *group) nogil
    int EC_GROUP_get_curve(const EC_GROUP *group, BIGNUM *p, BIGNUM *a, BIGNUM *b, BN_CTX *ctx) nogil
    int EC_GROUP_set_generator(EC_GROUP *group, const EC_POINT *generator, const BIGNUM *order,
                               const BIGNUM *cofactor) nogil
    int EC_GROUP_precompute_mult(EC_GROUP *group, BN_CTX *ctx) nogil
    EC_POINT *EC_POINT_new(const EC_GROUP *group) nogil
    void EC_POINT_free(EC_POINT *point) nogil
    int EC_POINT_oct2point(const EC_GROUP *group, EC_POINT *point, const unsigned char *data, size_t length,
                           BN_CTX *ctx) nogil
    int EC_POINT_mul(const EC_GROUP *group, EC_POINT *r, const BIGNUM *n, const EC_POINT *q, const BIGNUM *m,
                     BN_CTX *ctx) nogil
    int EC_POINT_add(const EC_GROUP *group, EC_POINT *r, const EC_POINT *a, const EC_POINT *b, BN_CTX *ctx) nogil
    int EC_POINT_is_at_infinity(const EC_GROUP *group, const EC_POINT *point) nogil
    int EC_POINT_get_affine_coordinates(const EC_GROUP *group, const EC_POINT *point, BIGNUM *x, BIGNUM *y,
                                        BN_CTX *ctx) nogil
    int EC_POINT_get_Jprojective_coordinates_GFp(const EC_GROUP *group, const EC_POINT *point, BIGNUM *x, BIGNUM *y,
                                                 BIGNUM *z, BN_CTX *ctx) nogil

cdef enum:
    OPENSSL_VERSION_TEXT = 0  # argument of OpenSSL_version
    EVP_PKEY_PUBLIC_KEY = 0x86  # selection: domain parameters and public key
    RSA_PKCS1_PADDING = 1
    RSA_NO_PADDING = 3
    RSA_PKCS1_PSS_PADDING = 6
    NID_P256 = 415  # X9.62 prime256v1
