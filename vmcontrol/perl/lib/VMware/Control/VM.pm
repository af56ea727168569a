package VMware::Control::VM;

use strict;
use warnings;

use Scalar::Util ();

use VMware::VmPerl::ConnectParams ();
use VMware::VmPerl::Object ();
use VMware::VmPerl::VM ();

our $VERSION = '1.0.0';
our @ISA = ('VMware::VmPerl::VM');

# new(), or new($where, $config) with a VMware::Control::Server or ConnectParams.
sub new {
    my ($class, $where, $config) = VMware::VmPerl::Object::_arguments(__PACKAGE__, @_);
    my $self = VMware::VmPerl::Object::_new($class);
    $where = $where->{params} if Scalar::Util::blessed($where) && $where->isa('VMware::Control::Server');
    @$self{qw(params wanted)} = ($where, $config);
    return $self;
}

# connect(), or as in VmPerl.
sub connect {
    my ($self, $params, $config, $mks) = @_;
    $params = $self->{params} if !defined $params;
    $params = VMware::VmPerl::ConnectParams::new() if !defined $params;
    return $self->SUPER::connect($params, defined $config ? $config : $self->{wanted}, $mks);
}

1;

__END__

=head1 NAME

VMware::Control::VM - VMware::VmPerl::VM under its older name

=head1 DESCRIPTION

C<new()> takes nothing, or a L<VMware::Control::Server> (or L<VMware::VmPerl::ConnectParams>) and the path of a
configuration file, and keeps them for a C<connect()> without arguments. Everything else is
L<VMware::VmPerl::VM>. See L<VMware::Control>.

=cut
