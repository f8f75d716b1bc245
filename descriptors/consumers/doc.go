// Package consumers knows who calls: the credentials that were issued, the
// consumers they belong to, and what each may take from.
//
// A source (a file, the embedded store, a database) holds consumers, their
// tokens as SHA-256 hashes, and plans. A [Registry] holds the same in memory and
// answers, for the credential of a request, with a [Grant]: the consumer, the
// token's id and the live limiters. Sources tell it of changes one by one
// ([Registry.Put], [Registry.Remove]) or all at once ([Registry.Replace]).
//
//	r := consumers.NewRegistry(consumers.RegistryOptions{WarmUp: warmUp})
//	if err := r.Replace(clock.Now(), set); err != nil { … }
//	grant, standing := r.Resolve(clock.Now(), credential)
//
// What it guarantees:
//
//   - A credential is an identity. It is known by the hash of exactly its bytes;
//     no spelling of it is a second one. Nothing is kept of what nobody issued.
//   - A change is in force with the next decision, whole or not at all, and costs
//     the change: neither a decision nor another change waits for a copy of
//     everything. What a change of all leaves to do, each consumer's next request
//     does, or [Registry.Settle].
//   - Limiters belong to identities: consumer, token, limit. A changed number, a
//     rotation, a reload of the source leaves what was used; taking a token away
//     and adding it again mints no second grace and no second quota.
//   - Memory grows with what was issued, not with what is asked for.
package consumers
