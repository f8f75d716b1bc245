// Package limits is under construction.
package limits
