// Node's peers: fast-jwt (cache off and on), jose, and node:crypto as their limit. Driven by peers.py, which sends one
// JSON object a line and reads one back: {"prepare": ...} proves everybody on a token, {"time": name, "passes": n}
// times calls. argv[2] is the folder whose node_modules holds the packages.

import * as crypto from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { isDeepStrictEqual } from 'node:util'

const folder = join(process.argv[2], 'node_modules')
const require = createRequire(join(folder, 'index.js'))
const version = name => JSON.parse(readFileSync(join(folder, name, 'package.json'))).version
const { createVerifier } = require('fast-jwt')
const jose = await import(require.resolve('jose'))

const COPIES = 64
let contenders = {} // name -> token => claims, or a promise of them
let tokens = []

async function prepare({ algorithm, secret, pem, token, claims, bad, issuer, audience }) {
  const bytes = secret ? Buffer.from(secret, 'base64url') : pem
  const key = secret ? crypto.createSecretKey(bytes) : crypto.createPublicKey(pem)
  const required = { algorithms: [algorithm], requiredClaims: ['iss', 'aud', 'exp'] }
  const policy = { key: bytes, allowedIss: issuer, allowedAud: audience, ...required }
  const rules = { issuer, audience, ...required }
  const found = {
    'fast-jwt': createVerifier(policy),
    'fast-jwt, cached': createVerifier({ ...policy, cache: true }),
    jose: async text => (await jose.jwtVerify(text, key, rules)).payload
  }
  for (const [name, check] of Object.entries(found)) await prove(name, check, token, claims, bad)
  contenders = { 'no-op call': () => undefined, 'node:crypto': raw(algorithm, key, token), ...found }
  // Equal strings that are different objects: JSON.parse makes a new one each time.
  tokens = Array.from({ length: COPIES }, () => JSON.parse(JSON.stringify(token)))
  for (const name of Object.keys(contenders)) await time({ time: name, passes: 30 }) // let V8 compile it
  return { contenders: Object.keys(contenders) }
}

async function prove(name, check, token, claims, bad) {
  for (let time = 0; time < 2; time++) {
    if (!isDeepStrictEqual({ ...(await check(token)) }, claims)) throw new Error(`${name}: other claims than were signed`)
  }
  for (const [what, text] of Object.entries(bad)) {
    let accepted = true
    try {
      await check(text)
    } catch {
      accepted = false
    }
    if (accepted) throw new Error(`${name}: accepts ${what}`)
  }
}

// The signature check alone.
function raw(algorithm, key, token) {
  const dot = token.lastIndexOf('.')
  const message = Buffer.from(token.slice(0, dot))
  const signature = Buffer.from(token.slice(dot + 1), 'base64url')
  const other = Buffer.from(token.slice(0, dot - 1))
  let check
  if (algorithm.startsWith('HS')) {
    const hash = `sha${algorithm.slice(2)}`
    check = data => crypto.timingSafeEqual(crypto.createHmac(hash, key).update(data).digest(), signature)
  } else {
    const hash = algorithm === 'EdDSA' ? null : `sha${algorithm.slice(2)}`
    const options = { key, dsaEncoding: 'ieee-p1363' }
    if (algorithm.startsWith('PS')) {
      options.padding = crypto.constants.RSA_PKCS1_PSS_PADDING
      options.saltLength = crypto.constants.RSA_PSS_SALTLEN_DIGEST
    }
    check = data => crypto.verify(hash, data, options, signature)
  }
  if (!check(message) || check(other)) throw new Error('node:crypto: the raw check is wrong')
  return () => check(message)
}

async function time({ time: name, passes }) {
  const check = contenders[name]
  const asynchronous = name === 'jose'
  const cpu = process.cpuUsage()
  const wall = process.hrtime.bigint()
  for (let pass = 0; pass < passes; pass++) {
    if (asynchronous) for (const token of tokens) await check(token)
    else for (const token of tokens) check(token)
  }
  const elapsed = Number(process.hrtime.bigint() - wall) / 1000
  const { user, system } = process.cpuUsage(cpu)
  const calls = passes * tokens.length
  return { cpu: (user + system) / calls, wall: elapsed / calls }
}

const versions = { Node: process.version, 'libcrypto of Node': `OpenSSL ${process.versions.openssl}` }
for (const name of ['fast-jwt', 'jose']) versions[name] = version(name)
console.log(JSON.stringify({ versions }))
for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line)
  try {
    console.log(JSON.stringify(request.prepare ? await prepare(request.prepare) : await time(request)))
  } catch (error) {
    console.log(JSON.stringify({ error: String(error) }))
  }
}
