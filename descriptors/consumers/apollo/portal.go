package apollo

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tollgate-dev/tollgate/descriptors/consumers"
	"github.com/tollgate-dev/tollgate/descriptors/consumers/sqlstore"
	"github.com/tollgate-dev/tollgate/limits"
)

// portal is a portal's database as a follower reads it.
type portal struct {
	db       *sql.DB
	sessions consumers.Limits
	redact   func(string) string

	limited bool // ConsumerToken has RateLimit
	users   bool // there is UserToken
	since   string
	counted int64
}

// overlap is how long before the last look changes are looked for again, in
// seconds: their times are whole seconds, and come with a transaction's
// statement rather than with its end.
const overlap = 10

// Open looks which version of the tables there is.
func (p *portal) Open(ctx context.Context) error {
	rows, err := p.db.QueryContext(ctx, `SELECT table_name, column_name FROM information_schema.columns
		WHERE table_schema = DATABASE() AND column_name IN ('Token', 'AppId', 'Value', 'RateLimit', 'TokenHash')`)
	if err != nil {
		return p.explain("read the tables", err)
	}
	defer rows.Close()
	there := map[string]bool{}
	for rows.Next() {
		var table, column string
		if err := rows.Scan(&table, &column); err != nil {
			return p.explain("read the tables", err)
		}
		there[strings.ToLower(table+"."+column)] = true
	}
	if err := rows.Err(); err != nil {
		return p.explain("read the tables", err)
	}
	for _, column := range []string{"Consumer.AppId", "ConsumerToken.Token", "ServerConfig.Value"} {
		if !there[strings.ToLower(column)] {
			return fmt.Errorf("apollo: %w: no %s is to be seen: name the portal's database, ApolloPortalDB, with a user who has SELECT on Consumer, ConsumerToken and ServerConfig", sqlstore.ErrUnusable, column)
		}
	}
	p.limited, p.users = there["consumertoken.ratelimit"], there["usertoken.tokenhash"]
	return nil
}

func (p *portal) explain(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: apollo: %s: %s", consumers.ErrUnavailable, doing, p.redact(err.Error()))
}

// Changes tells whose rows changed lately.
func (p *portal) Changes(ctx context.Context) (c sqlstore.Changes, err error) {
	var now string
	var counted int64
	count := "SELECT NOW(), (SELECT COUNT(*) FROM Consumer) + (SELECT COUNT(*) FROM ConsumerToken)"
	if p.users {
		count += " + (SELECT COUNT(*) FROM UserToken)"
	}
	if err := p.db.QueryRowContext(ctx, count).Scan(&now, &counted); err != nil {
		return c, p.explain("count", err)
	}
	c.Settings = true // two rows: cheaper to read than to ask for
	if p.since != "" {
		c.All = counted != p.counted
		if c.IDs, err = p.changed(ctx); err != nil {
			return c, p.explain("read changes", err)
		}
	}
	p.since, p.counted = now, counted
	return c, nil
}

// changed returns the ids that may stand for rows that changed: of a consumer
// all its tokens, since the first is another when one is deleted.
func (p *portal) changed(ctx context.Context) (ids []string, err error) {
	const since = "DataChange_LastTime >= ? - INTERVAL ? SECOND"
	query := `SELECT c.AppId, t.Id FROM Consumer c LEFT JOIN ConsumerToken t ON t.ConsumerId = c.Id WHERE c.Id IN (
		SELECT Id FROM Consumer WHERE ` + since + ` UNION SELECT ConsumerId FROM ConsumerToken WHERE ` + since + `)`
	args := []any{p.since, overlap, p.since, overlap}
	if p.users {
		query += " UNION ALL SELECT NULL, Id FROM UserToken WHERE " + since
		args = append(args, p.since, overlap)
	}
	rows, err := p.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var app sql.NullString
		var token sql.NullInt64
		if err := rows.Scan(&app, &token); err != nil {
			return nil, err
		}
		switch {
		case !app.Valid:
			ids = append(ids, userID(token.Int64))
		case token.Valid:
			ids = append(ids, app.String, furtherID(app.String, token.Int64))
		default:
			ids = append(ids, app.String)
		}
	}
	return ids, rows.Err()
}

func furtherID(app string, token int64) string { return app + "@" + strconv.FormatInt(token, 10) }

const userPrefix = "@user."

func userID(token int64) string { return userPrefix + strconv.FormatInt(token, 10) }

// The keys of ServerConfig, and how the settings of Tollgate are called.
var keys = map[string]string{
	"open.api.limit.enabled": "mode",
	"open.api.limit.count":   "default_limit",
}

// Settings reads the portal's ServerConfig.
func (p *portal) Settings(ctx context.Context) (sqlstore.Settings, error) {
	rows, err := p.db.QueryContext(ctx, "SELECT `Key`, `Value` FROM ServerConfig WHERE IsDeleted = 0 AND `Key` IN ('open.api.limit.enabled', 'open.api.limit.count')")
	if err != nil {
		return nil, p.explain("read ServerConfig", err)
	}
	defer rows.Close()
	all := sqlstore.Settings{}
	for rows.Next() {
		var key, value string
		if err := rows.Scan(&key, &value); err != nil {
			return nil, p.explain("read ServerConfig", err)
		}
		if name := keys[key]; name != "" {
			all[name] = sqlstore.Setting{Value: setting(name, strings.TrimSpace(value))}
		}
	}
	return all, p.explain("read ServerConfig", rows.Err())
}

// setting is a value of ServerConfig in Tollgate's words; one that is neither is
// left as it is, to be complained about.
func setting(name, value string) string {
	if name == "mode" {
		switch strings.ToLower(value) {
		case "true", "on", "enforce":
			return "enforce"
		case "false", "off":
			return "off"
		}
		return strings.ToLower(value)
	}
	n, err := strconv.ParseInt(value, 10, 64)
	switch {
	case err != nil:
		return value
	case n == 0:
		return "none"
	}
	return strconv.FormatInt(n, 10) + "/s"
}

// Page reads consumers by the numbers of their rows, then users' tokens.
func (p *portal) Page(ctx context.Context, after string, n int) (rows []sqlstore.Row, next string, err error) {
	if after == "" {
		rows, after = append(rows, p.sessionsRow()), "consumer 0"
	}
	table, text, _ := strings.Cut(after, " ")
	behind, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil, "", err
	}
	var last int64
	var page []sqlstore.Row
	if table == "consumer" {
		page, last, err = p.consumers(ctx, "c.Id IN (SELECT Id FROM (SELECT Id FROM Consumer WHERE Id > ? ORDER BY Id LIMIT ?) AS page)", behind, n)
	} else {
		page, last, err = p.userTokens(ctx, "Id > ?", "LIMIT ?", behind, n)
	}
	if err != nil {
		return nil, "", p.explain("read consumers", err)
	}
	switch {
	case last > 0:
		next = table + " " + strconv.FormatInt(last, 10)
	case table == "consumer" && p.users:
		next = "user 0"
	}
	return append(rows, page...), next, nil
}

func (p *portal) sessionsRow() sqlstore.Row {
	return sqlstore.Row{Consumer: consumers.Consumer{ID: Sessions, Limits: p.sessions}}
}

// idsEach is how many consumers are asked for at once.
const idsEach = 500

// Rows reads consumers by their ids, and their siblings.
func (p *portal) Rows(ctx context.Context, ids []string) (all []sqlstore.Row, err error) {
	var apps, users []any
	for _, id := range ids {
		switch token, isUser := strings.CutPrefix(id, userPrefix); {
		case id == Sessions:
			all = append(all, p.sessionsRow())
		case isUser:
			users = append(users, token)
		default:
			app, _, _ := strings.Cut(id, "@")
			if len(apps) == 0 || apps[len(apps)-1] != app {
				apps = append(apps, app)
			}
		}
	}
	in := func(column string, n int) string { return column + " IN (?" + strings.Repeat(", ?", n-1) + ")" }
	for part := range slices.Chunk(apps, idsEach) {
		rows, _, err := p.consumers(ctx, in("c.AppId", len(part)), part...)
		if err != nil {
			return nil, p.explain("read consumers", err)
		}
		all = append(all, rows...)
	}
	for part := range slices.Chunk(users, idsEach) {
		rows, _, err := p.userTokens(ctx, in("Id", len(part)), "", part...)
		if err != nil {
			return nil, p.explain("read tokens of users", err)
		}
		all = append(all, rows...)
	}
	return all, nil
}

// expires is a DATETIME of the database's time zone in microseconds since the
// Unix epoch. UNIX_TIMESTAMP ends in 2038 on some servers; Apollo's tokens do not.
const expires = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', Expires) - 1000000 * ROUND(TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(), NOW()) / 900) * 900"

// consumers reads consumers with their tokens, deleted ones too: last is the
// number of the last row, 0 for none.
func (p *portal) consumers(ctx context.Context, where string, args ...any) (all []sqlstore.Row, last int64, err error) {
	limit := "NULL"
	if p.limited {
		limit = "t.RateLimit"
	}
	rows, err := p.db.QueryContext(ctx, "SELECT c.Id, c.IsDeleted + 0, c.AppId, c.OrgId, c.OwnerName, t.Id, t.Token, "+limit+", "+strings.ReplaceAll(expires, "Expires", "t.Expires")+
		" FROM Consumer c LEFT JOIN ConsumerToken t ON t.ConsumerId = c.Id AND t.IsDeleted = 0 WHERE "+where+" ORDER BY c.Id, t.Id", args...)
	if err != nil {
		return nil, 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var deleted bool
		var app, org, owner string
		var t token
		before := last
		if err := rows.Scan(&last, &deleted, &app, &org, &owner, &t.id, &t.value, &t.limit, &t.expires); err != nil {
			return nil, 0, err
		}
		if deleted {
			continue
		}
		c := consumers.Consumer{ID: app, Labels: map[string]string{"app": app, "org": org, "owner": owner}}
		if before == last {
			c.ID = furtherID(app, t.id.Int64)
		}
		if !t.id.Valid {
			all = append(all, sqlstore.Row{Consumer: c})
			continue
		}
		all = append(all, t.row(c, consumers.HashOf(consumers.FoldHex(t.value.String))))
	}
	return all, last, rows.Err()
}

// userTokens reads the tokens of users.
func (p *portal) userTokens(ctx context.Context, where, more string, args ...any) (all []sqlstore.Row, last int64, err error) {
	rows, err := p.db.QueryContext(ctx, "SELECT Id, IsDeleted + 0 OR RevokedAt IS NOT NULL, UserId, TokenHash, RateLimit, "+expires+" FROM UserToken WHERE "+where+" ORDER BY Id "+more, args...)
	if err != nil {
		return nil, 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var ended bool
		var user string
		var t token
		if err := rows.Scan(&t.id, &ended, &user, &t.value, &t.limit, &t.expires); err != nil {
			return nil, 0, err
		}
		last = t.id.Int64
		if ended {
			continue
		}
		h, err := consumers.ParseHash(t.value.String)
		row := t.row(consumers.Consumer{ID: userID(last), Labels: map[string]string{"user": user}}, h)
		row.Err = cmp.Or(row.Err, err)
		all = append(all, row)
	}
	return all, last, rows.Err()
}

// token is a row of either table of tokens.
type token struct {
	id      sql.NullInt64
	value   sql.NullString
	limit   sql.NullInt64
	expires sql.NullFloat64
}

// row gives a consumer the token.
func (t *token) row(c consumers.Consumer, h consumers.Hash) sqlstore.Row {
	r := sqlstore.Row{Consumer: c}
	if t.value.String == "" {
		r.Err = errors.New("its token is empty")
	}
	switch n := t.limit.Int64; {
	case !t.limit.Valid:
	case n <= 0:
		r.Consumer.Limits = consumers.Limits{}
	default:
		r.Consumer.Limits = consumers.Limits{{Limit: limits.Limit{Kind: limits.Rate, N: n, Period: time.Second}}}
	}
	r.Consumer.Tokens = []consumers.Token{{ID: strconv.FormatInt(t.id.Int64, 10), Hash: h, Expires: sqlstore.At(t.expires)}}
	return r
}
