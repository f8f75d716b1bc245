package main

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/tollgate-dev/tollgate/envoy/envoytest/throttle"
)

// host is the name of the fake.
const host = "keepersecurity.example"

// fakeKeeper answers get_secret as Keeper's API does, to one device, and
// throttles it as Keeper does.
type fakeKeeper struct {
	*throttle.Throttle
	account account
	server  *http.Server
	addr    string
}

// startFake runs a fake on a free port of loopback.
func startFake(a account, cert tls.Certificate, o throttle.Options) (*fakeKeeper, error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f := &fakeKeeper{Throttle: throttle.New(o), account: a, addr: lis.Addr().String()}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/rest/sm/v1/get_secret", f.getSecret)
	f.server = &http.Server{Handler: mux, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}, ErrorLog: log.New(io.Discard, "", 0)}
	go func() {
		if err := f.server.ServeTLS(lis, "", ""); !errors.Is(err, http.ErrServerClosed) {
			log.Print(err)
		}
	}()
	return f, nil
}

func (f *fakeKeeper) getSecret(w http.ResponseWriter, r *http.Request) {
	taken := f.Take(time.Now())
	if r.Host != host {
		http.Error(w, fmt.Sprintf("host %q: this is %s", r.Host, host), http.StatusMisdirectedRequest)
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return
	}
	key, uids, err := f.account.open(r.Header, body)
	if err != nil {
		w.WriteHeader(http.StatusForbidden)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": "access_denied", "message": err.Error()})
		return
	}
	if !taken {
		throttle.Refuse(w, r)
		return
	}
	answer, err := f.account.records(uids)
	if err == nil {
		answer, err = seal(key, answer)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(answer)
}

// account is a Keeper application with one device: what the vendor's server
// knows of it, and what is in the client's configuration.
type account struct {
	server   *ecdh.PrivateKey
	device   *ecdsa.PrivateKey
	clientID []byte
	appKey   []byte
}

// open returns the transmission key of a request and which records it is for,
// if it is this device's.
func (a account) open(h http.Header, body []byte) (key []byte, uids []string, err error) {
	wrapped, err := base64.StdEncoding.DecodeString(h.Get("TransmissionKey"))
	if err != nil || len(wrapped) < 65 {
		return nil, nil, errors.New("no transmission key")
	}
	signature, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(h.Get("Authorization"), "Signature "))
	if err != nil {
		return nil, nil, err
	}
	digest := sha256.Sum256(append(append([]byte{}, wrapped...), body...))
	if !ecdsa.VerifyASN1(&a.device.PublicKey, digest[:], signature) {
		return nil, nil, errors.New("the signature is not this device's")
	}
	ephemeral, err := ecdh.P256().NewPublicKey(wrapped[:65])
	if err != nil {
		return nil, nil, err
	}
	shared, err := a.server.ECDH(ephemeral)
	if err != nil {
		return nil, nil, err
	}
	wrapping := sha256.Sum256(shared)
	if key, err = unseal(wrapping[:], wrapped[65:]); err != nil {
		return nil, nil, err
	}
	plain, err := unseal(key, body)
	if err != nil {
		return nil, nil, err
	}
	var request struct {
		ClientID         string   `json:"clientId"`
		RequestedRecords []string `json:"requestedRecords"`
	}
	if err := json.Unmarshal(plain, &request); err != nil {
		return nil, nil, err
	}
	if request.ClientID != base64.StdEncoding.EncodeToString(a.clientID) {
		return nil, nil, errors.New("another client")
	}
	return key, request.RequestedRecords, nil
}

// records returns each record with its uid as its password.
func (a account) records(uids []string) ([]byte, error) {
	type record struct {
		RecordUID  string `json:"recordUid"`
		Revision   int    `json:"revision"`
		IsEditable bool   `json:"isEditable"`
		RecordKey  string `json:"recordKey"`
		Data       string `json:"data"`
		Files      []any  `json:"files"`
	}
	all := []record{}
	for _, uid := range uids {
		data, err := json.Marshal(map[string]any{"title": uid, "type": "login", "custom": []any{},
			"fields": []any{map[string]any{"type": "password", "value": []string{passwordOf(uid)}}}})
		if err != nil {
			return nil, err
		}
		key := make([]byte, 32)
		_, _ = rand.Read(key) // never fails, says crypto/rand
		sealedKey, err := seal(a.appKey, key)
		if err != nil {
			return nil, err
		}
		sealed, err := seal(key, data)
		if err != nil {
			return nil, err
		}
		all = append(all, record{RecordUID: uid, Revision: 1, IsEditable: true, Files: []any{},
			RecordKey: base64.StdEncoding.EncodeToString(sealedKey), Data: base64.StdEncoding.EncodeToString(sealed)})
	}
	return json.Marshal(map[string]any{"records": all, "folders": []any{}})
}

func passwordOf(uid string) string { return "password of " + uid }

// seal encrypts by AES-GCM, with the nonce before it.
func seal(key, plain []byte) ([]byte, error) {
	aead, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, aead.NonceSize())
	_, _ = rand.Read(nonce)
	return aead.Seal(nonce, nonce, plain, nil), nil
}

func unseal(key, sealed []byte) ([]byte, error) {
	aead, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	if len(sealed) < aead.NonceSize() {
		return nil, errors.New("too short")
	}
	return aead.Open(nil, sealed[:aead.NonceSize()], sealed[aead.NonceSize():], nil)
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
