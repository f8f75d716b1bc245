package keeper

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tollgate-dev/tollgate/envoy/envoytest/throttle"
)

// Host is the name of the fake.
const Host = "keepersecurity.example"

// Fake answers get_secret as Keeper's API does, to one device, and throttles it
// as Keeper does. Every record is there: its password says its uid, and how often
// it was changed. A Fake is safe for concurrent use.
type Fake struct {
	*throttle.Throttle
	Account Account
	Addr    string

	server *http.Server

	mu      sync.Mutex
	changes map[string]int
	reads   map[string]int
	pushed  []string // records that External Secrets writes
	writes  int
}

// Start runs a fake on a free port of loopback until it is closed.
func Start(a Account, cert tls.Certificate, o throttle.Options) (*Fake, error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f := &Fake{Throttle: throttle.New(o), Account: a, Addr: lis.Addr().String(), changes: map[string]int{}, reads: map[string]int{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/rest/sm/v1/get_secret", f.serve(f.records))
	mux.HandleFunc("POST /api/rest/sm/v1/update_secret", f.serve(f.update))
	f.server = &http.Server{Handler: mux, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}, ErrorLog: log.New(io.Discard, "", 0)}
	go func() {
		if err := f.server.ServeTLS(lis, "", ""); !errors.Is(err, http.ErrServerClosed) {
			log.Print(err)
		}
	}()
	return f, nil
}

// Close ends the fake.
func (f *Fake) Close() error { return f.server.Close() }

// Change gives a record another password.
func (f *Fake) Change(uid string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changes[uid]++
}

// Password returns the password of a record as it is now.
func (f *Fake) Password(uid string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.password(uid)
}

func (f *Fake) password(uid string) string {
	if n := f.changes[uid]; n > 0 {
		return fmt.Sprintf("password of %s, changed %d times", uid, n)
	}
	return "password of " + uid
}

// Hold adds records that External Secrets may write: a call for all records
// returns these.
func (f *Fake) Hold(titles ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pushed = append(f.pushed, titles...)
}

// Writes returns how many writes were taken.
func (f *Fake) Writes() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.writes
}

// update takes a write, and does not look what of.
func (f *Fake) update([]string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.writes++
	return []byte("{}"), nil
}

// Reads returns how often each record was read.
func (f *Fake) Reads() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.reads)
}

// serve answers calls that are to be decrypted, counted and answered in secret.
func (f *Fake) serve(answer func(uids []string) ([]byte, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { f.call(w, r, answer) }
}

func (f *Fake) call(w http.ResponseWriter, r *http.Request, respond func(uids []string) ([]byte, error)) {
	taken := f.Take(time.Now())
	if r.Host != Host {
		http.Error(w, fmt.Sprintf("host %q: this is %s", r.Host, Host), http.StatusMisdirectedRequest)
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return
	}
	key, uids, err := f.Account.open(r.Header, body)
	if err != nil {
		w.WriteHeader(http.StatusForbidden)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": "access_denied", "message": err.Error()})
		return
	}
	if !taken {
		throttle.Refuse(w, r)
		return
	}
	answer, err := respond(uids)
	if err == nil {
		answer, err = seal(key, answer)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(answer)
}

// ServerKeyID is the fake's key among those that an SDK has.
const ServerKeyID = "99"

// Account is a Keeper application with one device: what the vendor's server
// knows of it, and what is in the client's configuration.
type Account struct {
	server   *ecdh.PrivateKey
	device   *ecdsa.PrivateKey
	clientID []byte
	appKey   []byte
}

// NewAccount makes an account. The SDK has to be given its [Account.ServerKey].
func NewAccount() (Account, error) {
	server, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return Account{}, err
	}
	device, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Account{}, err
	}
	a := Account{server: server, device: device, clientID: make([]byte, 64), appKey: make([]byte, 32)}
	_, _ = rand.Read(a.clientID) // never fails, says crypto/rand
	_, _ = rand.Read(a.appKey)
	return a, nil
}

// ServerKey is the fake's public key as the SDK writes those of the vendor.
func (a Account) ServerKey() string {
	return base64.RawURLEncoding.EncodeToString(a.server.PublicKey().Bytes())
}

// Stranger returns another device that calls the same server.
func (a Account) Stranger() (Account, error) {
	other, err := NewAccount()
	other.server = a.server
	return other, err
}

// Config is the SDK's configuration of the device, for a host.
func (a Account) Config(host string) (map[string]string, error) {
	key, err := x509.MarshalPKCS8PrivateKey(a.device)
	return map[string]string{
		"hostname":          host,
		"clientId":          base64.StdEncoding.EncodeToString(a.clientID),
		"privateKey":        base64.StdEncoding.EncodeToString(key),
		"serverPublicKeyId": ServerKeyID,
		"appKey":            base64.StdEncoding.EncodeToString(a.appKey),
	}, err
}

// open returns the transmission key of a request and which records it is for,
// if it is this device's.
func (a Account) open(h http.Header, body []byte) (key []byte, uids []string, err error) {
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

// records returns records as they are now, and counts that they were read.
func (f *Fake) records(uids []string) ([]byte, error) {
	type record struct {
		RecordUID  string `json:"recordUid"`
		Revision   int    `json:"revision"`
		IsEditable bool   `json:"isEditable"`
		RecordKey  string `json:"recordKey"`
		Data       string `json:"data"`
		Files      []any  `json:"files"`
	}
	all := []record{}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(uids) == 0 {
		uids = f.pushed
	}
	for _, uid := range uids {
		kind := "login"
		if slices.Contains(f.pushed, uid) {
			kind = "externalSecrets"
		}
		data, err := json.Marshal(map[string]any{"title": uid, "type": kind, "custom": []any{},
			"fields": []any{map[string]any{"type": "password", "value": []string{f.password(uid)}}}})
		if err != nil {
			return nil, err
		}
		f.reads[uid]++
		key := make([]byte, 32)
		_, _ = rand.Read(key) // never fails, says crypto/rand
		sealedKey, err := seal(f.Account.appKey, key)
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
