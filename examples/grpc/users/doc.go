// Package users is the service that the example of gRPC serves and calls, made from
// users.proto by protoc:
//
//	protoc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative users.proto
package users
