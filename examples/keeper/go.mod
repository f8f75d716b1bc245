module github.com/tollgate-dev/tollgate/examples/keeper

go 1.26.0

require (
	github.com/keeper-security/secrets-manager-go/core v1.7.0
	github.com/tollgate-dev/tollgate v0.0.0
)

replace github.com/tollgate-dev/tollgate => ../..
