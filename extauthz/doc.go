// Package extauthz is under construction.
package extauthz
