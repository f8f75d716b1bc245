// Package apollo reads consumers from the database of an Apollo portal
// (apolloconfig/apollo, MySQL or MariaDB): the tables Consumer, ConsumerToken,
// ServerConfig and, from 3.0 on, UserToken. Nothing is written, and a user with
// SELECT on these tables is enough.
//
//	consumers:
//	  source: apollo
//	  dsn: reader:${PASSWORD}@tcp(db.example:3306)/ApolloPortalDB
//	  poll: 1s
//	  sessions: 1000/s   # of the portal's own pages, which call with a session and without a token
//
// What the tables become:
//
//   - A row of Consumer is a consumer by its AppId, with the labels app, org and
//     owner. Its token of the lowest Id belongs to it; each further token is a
//     consumer of its own, AppId@Id, since tokens of one Apollo consumer may have
//     different limits.
//   - A user's token is the consumer @user.Id, with the label user.
//   - RateLimit N is N/s with a second's burst; 0 is unlimited, as the portal shows
//     it; NULL, or no such column (before 2.4), is the default limit.
//   - Expires and IsDeleted end a token. Expires is in the time zone of the
//     database, as the portal writes it.
//   - Requests without a token are the consumer @portal, see [Sessions].
//   - open.api.limit.enabled in ServerConfig is the global switch: true (or
//     enforce), shadow, false (or off). open.api.limit.count is the default limit,
//     0 for none. Where they are not set, the configuration file says.
//
// Changes are found by DataChange_LastTime, read again with an overlap since it
// counts whole seconds, and by the number of rows; everything is compared every 30
// seconds, which finds what else somebody's SQL did.
package apollo
