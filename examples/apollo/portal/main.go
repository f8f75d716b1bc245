// Portal stands in for Apollo's portal: what its filters do about tokens and
// sessions, and nothing behind. It has no limits; that is what Tollgate is for.
//
//   - Authorization is a token without a scheme. It is looked for in the database
//     with every request, and the column's collation decides: either case is good.
//   - Without a token a session counts, as the portal's own pages have one; without
//     either, the answer is the way to the sign-in page.
//   - A wrong token is a 401 without a body.
package main

import (
	"database/sql"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	_ "github.com/go-sql-driver/mysql"
)

type portal struct {
	db     *sql.DB
	served atomic.Int64 // calls of the API that reached the portal
}

func main() {
	listen := flag.String("listen", "127.0.0.1:8070", "where to listen")
	dsn := flag.String("dsn", "", "the portal's database")
	flag.Parse()
	db, err := sql.Open("mysql", *dsn)
	if err != nil {
		log.Fatal("the DSN cannot be read")
	}
	p := &portal{db: db}
	http.HandleFunc("/openapi/", p.api)
	http.HandleFunc("/served", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, p.served.Load()) })
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if p.session(w, r) {
			fmt.Fprintln(w, "<h1>Apollo</h1>")
		}
	})
	server := &http.Server{Addr: *listen, ReadHeaderTimeout: 5 * time.Second}
	log.Fatal(server.ListenAndServe())
}

func (p *portal) api(w http.ResponseWriter, r *http.Request) {
	p.served.Add(1)
	token := r.Header.Get("authorization")
	if token == "" {
		if !p.session(w, r) {
			return
		}
		token = "session"
	} else if !p.known(r, token) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	w.Header().Set("content-type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"method": r.Method, "path": r.URL.Path})
}

func (p *portal) known(r *http.Request, token string) bool {
	var id int64
	err := p.db.QueryRowContext(r.Context(), "SELECT Id FROM ConsumerToken WHERE Token = ? AND Expires > NOW() AND IsDeleted = 0", token).Scan(&id)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		log.Print("the database does not answer: ", err)
	}
	return err == nil
}

func (p *portal) session(w http.ResponseWriter, r *http.Request) bool {
	c, err := r.Cookie("SESSION")
	if err != nil || strings.TrimSpace(c.Value) == "" {
		http.Redirect(w, r, "/signin", http.StatusFound)
		return false
	}
	return true
}
